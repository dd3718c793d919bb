"""Saving and loading: weights, and whole models with what training needs to go on."""
