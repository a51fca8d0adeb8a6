"""Annotation tables as datasets in the forms that ``sniper.data.readers`` read."""
