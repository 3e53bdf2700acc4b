"""How deliveries leave and messages come in, a folder for each kind of wire; nothing here decides on a message."""
