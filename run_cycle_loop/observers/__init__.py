"""Those who only watch the loop: its log, its metrics, its line to systemd. Each is an ``Observer`` that may fail
without harm, because the loop counts what an observer raises and goes on. What decides anything, or keeps anything that
the loop reads back, does not belong here.
"""
