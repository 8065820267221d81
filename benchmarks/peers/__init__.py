"""What people would use instead, each written the way its users would write it."""
