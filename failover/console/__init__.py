"""What the user sees and presses. Knows events, knows no SDK."""
