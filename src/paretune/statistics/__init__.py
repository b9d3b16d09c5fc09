"""What a few seeds allow to say: intervals, paired differences, tie groups, shares of runs. Numpy and scipy only."""
