"""The listener: the predict core on a microphone, and what only the listener needs."""
