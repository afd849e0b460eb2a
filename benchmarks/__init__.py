"""Time against equilibrium quality, energax beside other systems, and single measurements. No part of the library."""
