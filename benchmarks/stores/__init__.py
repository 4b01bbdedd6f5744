"""What do idle circuits cost a process and its store?"""
