"""What an embedding is worth: classification of images by their nearest neighbours."""
