"""Write predictions as annotations, for other tools in which people check and correct them."""
