"""Each setting, declared once: name, kind, default, flag, variable, file key and help; and where each value came from.

Here belong the declarations, the sources with their precedence, the options and the page that are made from the
declarations. What a setting does belongs to the room that uses it; nothing here runs, writes or prints, the page apart.
"""
