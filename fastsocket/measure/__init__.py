"""fastsocket measure: would it pay here? Watches a live server, with nothing preloaded, and says what could help.

target       which server is meant
machine, tasks, namespace, listeners, surroundings   what the kernel tells without a right of its own
probe        what BPF tells
reading      all of that at one moment
measuring    two readings and samples between them
evaluation   what happened between two readings
measured     the result
rules        what each switch could bring, from the result
report       the result for people
"""
