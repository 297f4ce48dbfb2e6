"""The verbs of the command line, one module each, imported when it is used: `main(arguments, dirs)`."""
