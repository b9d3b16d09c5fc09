"""What a few seeds allow to say: Student-t intervals, paired differences and tie groups. Numpy and scipy only."""
