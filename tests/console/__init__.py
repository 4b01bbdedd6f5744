"""What is seen and pressed: the screen, the lines, the log, the picture, the keys."""
