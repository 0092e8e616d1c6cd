"""How the sandbox's pictures are painted: colours, a canvas, scenes, and a caption. Needs Pillow only."""
