"""Fronts and their indicators. Scores are maximised, reference points lie below them. Numpy and moocore only."""
