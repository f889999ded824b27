"""`fedaigc demo`: a training and a drawing together, and the page that shows it."""
