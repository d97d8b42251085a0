"""The loops: restore pictures and train models. They know no network by name and no terminal."""
