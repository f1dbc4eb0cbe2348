"""fastsocket measure: would it pay here? Watches a live server, with nothing preloaded, and says what could help.

target       which server the user means
machine, tasks, namespace, listeners, surroundings   what the kernel tells about it without BPF
probe        what BPF tells about it
reading      all of these numbers at one moment
measuring    takes two readings, and samples between them
evaluation   what happened between two readings
measured     the result
rules        what each switch could bring, from the result
report       the result as tables for people
"""
