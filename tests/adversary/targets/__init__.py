"""One module for each kind of file; importing one registers its targets."""
