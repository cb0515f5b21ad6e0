"""What a user could pick instead of a network, on the windows, split, mask and metric of the networks."""
