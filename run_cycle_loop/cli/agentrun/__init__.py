"""The commands of AgentRuns: words to calls, as everywhere in ``cli``; what they call is in ``app``."""
