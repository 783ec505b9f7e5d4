SELECT flight, carrier, name FROM flights JOIN airlines USING (carrier) WHERE delay > 3
