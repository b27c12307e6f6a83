"""Recipes from and to the settings of other tools. What has no equivalent there or here is said by name."""
