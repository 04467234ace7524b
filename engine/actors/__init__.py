"""The inside: runs, hooks and supervision as actors that talk in messages."""
