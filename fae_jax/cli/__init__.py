"""The command line: parsing, opening an experiment, ending."""
