"""What SQL texts do, told from the texts alone."""
