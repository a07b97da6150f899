"""Users who choose by how well an item goes with their memory."""
