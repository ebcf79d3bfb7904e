"""`mira plan`: what labelling and scoring will ask for, priced before anything is asked."""
