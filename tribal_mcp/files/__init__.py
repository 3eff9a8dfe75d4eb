"""The only code that opens paths a user names, and the files that we publish."""
