"""Images in, and the way back from the model's input to the photo's own pixels."""
