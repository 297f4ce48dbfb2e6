"""The command line: one module for each verb, with `parser()` and `main(arguments)`.

A verb is imported when it is used, and imports torch only to do its work, so that every `--help` is quick.
"""
