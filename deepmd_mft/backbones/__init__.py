"""What is asked of a descriptor, and the descriptors of our own."""
