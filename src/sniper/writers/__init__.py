"""Results as files, one module a form: written image by image, complete under their name or not there at all."""
