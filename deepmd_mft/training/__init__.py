"""What a training consists of besides the model: losses."""
