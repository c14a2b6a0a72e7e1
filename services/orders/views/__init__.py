"""What families, institutions and authorities see: lessons consumed, money left, every coming deadline; sums."""
