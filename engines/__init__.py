"""Audio in, transcript out: every way this project runs Whisper."""
