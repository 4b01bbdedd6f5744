"""What does a circuit add to a call, and what does it take of memory?"""
