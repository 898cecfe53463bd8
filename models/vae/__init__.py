"""The variational autoencoder, in torch. Imports: ground, `parts`."""
