"""What training needs at one place, prepared once by the server and opened by every worker."""
