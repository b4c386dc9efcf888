"""The composition root: settings in, objects out. The only room that knows every class, and the last one below the
command line.
"""
