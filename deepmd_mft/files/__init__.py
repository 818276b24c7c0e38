"""Files and folders: checksums, and writing whole or not at all."""
