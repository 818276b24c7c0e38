"""The heads, one file each: fitting net and the model that reads it out."""
