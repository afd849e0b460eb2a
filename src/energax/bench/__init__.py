"""`energax bench`: time against equilibrium quality, energax beside other systems. The library never imports this."""
