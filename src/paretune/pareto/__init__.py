"""Fronts and their indicators, with and without what evaluation noise adds. Numpy, scipy and moocore only."""
