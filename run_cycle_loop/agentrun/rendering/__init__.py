"""What a controller makes for an attempt: its prompts, its payloads, its Job and ConfigMaps, in both profiles.

Pure: objects in, objects out. Who creates them, or carries them out, is elsewhere.
"""
