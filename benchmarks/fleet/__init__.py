"""What do the loss and the recovery of a primary cost a fleet?"""
