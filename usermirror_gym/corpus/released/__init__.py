"""The data sets that the authors of UserMirrorer published."""
