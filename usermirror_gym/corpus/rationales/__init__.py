"""What language models write about the choices of a build."""
